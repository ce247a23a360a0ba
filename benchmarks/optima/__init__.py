"""What a loss truly optimises: its minimum over all policies, on data known in full."""
