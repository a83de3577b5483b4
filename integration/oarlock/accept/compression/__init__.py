"""What the experiments of criterion 1.3 share: the models with their texts, and what is measured."""
