"""What `mixer` alone prints: the commands by purpose, with an example each."""

OVERVIEW = """\
mixer classifies images with MLP-Mixer, on Apple silicon and Linux.

Classify
  mixer predict photo.jpg album/              classify files and folders
  mixer evaluate photos/ -m my-model          measure its accuracy
  mixer explain photo.jpg -o why.png          show what speaks for its class

Features
  mixer embed album/ -o album.npz             a vector for each image
  mixer nearest photo.jpg --in album/         find the images most like it

Teach it your own classes
  mixer check photos/                         find duplicates and broken files
  mixer few-shot photos/ --save my-model      in seconds, from a few images
  mixer fine-tune photos/ -o my-model         with one folder per class
  mixer train photos/ --variant S/16          train from scratch

Models
  mixer models                                list the published models
  mixer info cifar10                          show architecture and source
  mixer convert hf://user/repo my-model       import timm or JAX weights
  mixer export my-model back/ --format timm   export to timm, ONNX, Core ML
  mixer resize my-model large --image-size 448
                                              make a model take larger images
  mixer visualize cifar10 -o units/           draw what its units look like
  mixer cache list                            downloaded and converted models

This machine
  mixer benchmark --variant B/16              measure speed and memory
  mixer env                                   versions and performance tips

mixer COMMAND --help explains a command, mixer --help lists all of them.
"""
