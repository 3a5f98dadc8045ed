"""Grade a room: learners' notebooks are read, never run; their functions run apart, and are checked from here.

    submissions   files and archives that were handed in, read into memory
    answers       the learner's functions in a notebook, and what they need
    plain, peer   values and calls between two processes, as plain data
    confine       what a process may do: the limits, and what this system holds it to
    learner       the process that runs a learner's functions, and knows no exercise
    anew          a right answer is asked once more, what no notebook asks
    checking      the process that checks them with this installation's exercises, and runs nothing of theirs
    repairs       three exercises whose check and answer share a process: the answer's code is read first
    room          many files at once, and finished ones kept
    alike         answers that read like somebody else's
    gradebook     a row for each learner, and who has handed in nothing
    tables        grades.json, grades.csv, gradebook.csv and grades.html

Two processes, since in one of them nothing is safe: Python code can reach every object of its own process. What comes
out of a learner's process is a value, and what the value is worth is decided where no learner's code has ever been.
"""
