"""The paper's experiments: their plan, tables and figures."""
