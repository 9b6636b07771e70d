"""What each vendor publishes: its origins, its operations, which of them move money."""
