"""The page: `mixer serve` and `mixer teach`. Calls the library, and has no logic of its own."""
