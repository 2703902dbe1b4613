"""The paper's experiments: what is run, what the paper printed, and tables and figures of both."""
