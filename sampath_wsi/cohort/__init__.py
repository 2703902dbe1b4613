"""All slides of a run: their table (:mod:`.table`) and their page (:mod:`.page`)."""
