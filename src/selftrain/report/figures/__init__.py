"""The report's figures: matplotlib figures for the page, for Snakemake's own report, and for the documentation."""
