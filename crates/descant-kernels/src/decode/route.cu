// Routing of a step: route.cuh for every card.
#include "route.cuh"
