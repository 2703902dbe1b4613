"""Stage 1: where the tissue is (``tissue``), and the tiles that hold it (``stage``)."""
