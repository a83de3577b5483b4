"""What criterion 2.3.1 trains, dense and sparse."""
