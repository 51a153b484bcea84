"""The code of the endpoint; training and monitoring use it too."""
