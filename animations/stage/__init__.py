"""What every scene uses, and no scene."""
