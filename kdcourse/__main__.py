"""`python -m kdcourse` is the command `kdcourse`."""

from kdcourse.course.cli import main

main()
