"""What a call does, written once for every transport."""
