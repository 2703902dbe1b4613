"""The paper's experiments: what is run, and tables and figures of it."""
