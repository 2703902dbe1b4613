"""What people write: the configuration (``config``) and the sample sheet (``sheet``), and their checks."""
