"""Exercises that know the mistake: `check("01.kl", my_function)` passes an answer or names what is wrong with it."""

from kdcourse.course.exercises.catalogue import all_exercises, find_exercise
from kdcourse.course.exercises.diagnosis import Diagnosis, check, verify
from kdcourse.course.exercises.exercise import Exercise, Misconception

__all__ = ["Diagnosis", "Exercise", "Misconception", "all_exercises", "check", "find_exercise", "verify"]
