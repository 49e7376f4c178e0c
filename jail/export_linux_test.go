package jail

// Mark is in the names of this process's control groups.
var Mark = mark

// WhileMade are the limits of a jail while its first process is made.
var WhileMade = whileMade
