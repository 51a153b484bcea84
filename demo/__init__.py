"""The main job in rehearsal: build, deploy and run the workflow on a mixed set of images."""
