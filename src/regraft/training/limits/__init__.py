"""What the batches and the images of a stage can be."""
