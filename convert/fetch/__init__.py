"""What comes over the network: from the Hub, from Google's bucket, from any URL; and its cache."""
