"""preview: what models before and after self-training make of a few unlabeled images, for people to look at."""
