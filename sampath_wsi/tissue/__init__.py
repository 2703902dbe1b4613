"""Where the tissue is: found, or brought by people."""
