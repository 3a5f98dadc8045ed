"""For somebody who teaches this in a room: plans by the minute, a guide, quizzes, a handout."""
