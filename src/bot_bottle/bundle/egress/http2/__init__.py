"""HTTP/2 with clients that speak nothing else (gRPC): each stream is a request that is judged like any other."""
