"""What label tools export: LabelMe, Label Studio, CVAT, and JSON files of the COCO kind, one module for each."""
