"""What `simulate` is made of: options checked, learners handed in, curves drawn."""
