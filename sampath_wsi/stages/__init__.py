"""The stages, from a slide to its picture: arithmetic and I/O of each. No stage knows another; they meet in stores."""
