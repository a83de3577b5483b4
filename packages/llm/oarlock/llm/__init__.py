"""Language models on PaddlePaddle."""
