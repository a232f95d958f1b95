"""From results to a table and a page."""
