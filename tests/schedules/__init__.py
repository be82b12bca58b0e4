"""Seeded fault schedules: the product's code against all that may go wrong around it."""
