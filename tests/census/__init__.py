"""One step of every architecture of transformers, through the trainer and computed by hand."""
