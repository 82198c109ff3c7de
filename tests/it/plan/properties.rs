//! Properties of the planner, proved on a model kernel in memory that is stricter than a real one: it
//! refuses to make what is there or to remove what is not, and it stops the test when a plan touches a
//! link that is not ours.
