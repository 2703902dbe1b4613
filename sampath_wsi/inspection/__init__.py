"""What can be said of a slide before it is segmented (``slide``), and how long that will take (``estimate``)."""
