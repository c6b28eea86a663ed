"""What the labs of two chapters or more use."""
