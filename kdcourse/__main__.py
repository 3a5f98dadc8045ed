"""`python -m kdcourse` is the command `kdcourse`."""

from kdcourse.cli import main

main()
