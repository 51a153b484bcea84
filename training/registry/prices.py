"""List prices of SageMaker's instances in us-east-1, in US dollars an hour."""

#: When the prices were read.
READ_ON = "November 2026"
#: Of real-time inference, and of processing jobs (ml.t3.medium): https://aws.amazon.com/sagemaker/ai/pricing/
INSTANCE_HOURS = {
    "ml.m5.large": 0.115,
    "ml.m5.xlarge": 0.23,
    "ml.m5.2xlarge": 0.461,
    "ml.m5.4xlarge": 0.922,
    "ml.c5.large": 0.102,
    "ml.c5.xlarge": 0.204,
    "ml.c5.2xlarge": 0.408,
    "ml.t2.medium": 0.056,
    "ml.t3.medium": 0.05,
}
