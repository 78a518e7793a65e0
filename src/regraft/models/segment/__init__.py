"""Networks that name the class of every pixel: U-Net and SegNet on pretrained encoders, and what they predict with."""
