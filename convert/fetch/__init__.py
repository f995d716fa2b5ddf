"""What is fetched over the network (from the Hub, Google's bucket, any URL), and its cache."""
