package jail

// Mark is in the names of this process's control groups.
var Mark = mark
