"""The blocking, the asyncio and the speculative client."""
