"""The browser's tests find their own helpers beside them."""
