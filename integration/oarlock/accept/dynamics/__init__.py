"""What the experiments on molecular dynamics share: systems, arms, baselines."""
