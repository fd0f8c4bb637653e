"""The frozen backbone: any timm model as a feature pyramid on one grid."""
