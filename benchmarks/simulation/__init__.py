"""Pure: scheduling policies side by side in virtual time: the product's own plan and what is usual."""
