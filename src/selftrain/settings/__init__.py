"""What can be set: pydantic models, one module per stage of the flow, and the config file that holds them."""
