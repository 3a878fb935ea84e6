// Routing of a step on Hopper, where the blocks of a row are a cluster of BLOCKS: see route.cuh.
#include "sm90.cuh"

#define TOGETHER 1
#define CLUSTER __cluster_dims__(BLOCKS, 1, 1)
#include "route.cuh"
