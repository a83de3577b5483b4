"""What the experiments of criterion 1.2 share."""
