"""The machine: its GPUs (``device``), memory (``memory``), cores and versions (``facts``), SIGTERM (``stopping``)."""
