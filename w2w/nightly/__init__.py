"""The night: its steps in order, who is told how it ended, and the page of the morning after."""
