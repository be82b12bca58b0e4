"""What every kind of test may ask for."""

pytest_plugins = [
    "tests.support.engine",
    "tests.support.kafka",
    "tests.support.scheduling",
    "tests.support.server",
    "tests.support.s3",
]
