"""What the experiments of criterion 1.1 share: the race of optimisers, its sweep, its workers."""
